"""Object stores, by address: what is sent, read and cached there."""

from vaeaug.remote._store import RemoteError, Store, cache_of, is_url, require_space

__all__ = ["RemoteError", "Store", "cache_of", "is_url", "require_space"]
