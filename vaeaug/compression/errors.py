"""What goes wrong in compression."""


class CompressionError(ValueError):
    """Images that this coder cannot compress, or a file that it cannot decompress."""
