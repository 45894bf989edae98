"""Decode frames of video files, in a separate process, which a damaged file can crash.

`video` runs this file as a script (`python -P video_child.py`); it imports nothing from the
package. A question is a line of JSON. `{"open": path}` is answered by
`{"frames": declared, "rate": per second}`. `{"take": [indices in ascending order]}` is answered,
for each different index, by `{"shape": [h, w, 3]}` and the bytes of the frame, or by
`{"ended": frames that there are}`. Any question may be answered by `{"error": ...}`.
"""

import json
import math
import signal
import sys
from typing import Any

import numpy as np

# Pixels of a frame at most: more than any camera has.
_MOST_PIXELS = 2**26


def _answer(**content: Any) -> None:
    sys.stdout.buffer.write(json.dumps(content).encode() + b"\n")
    sys.stdout.buffer.flush()


class _Video:
    """One open video file."""

    def __init__(self, path: str) -> None:
        import cv2

        self._capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG)
        self._path, self._next = path, 0
        if not self._capture.isOpened():
            raise ValueError("its frames cannot be decoded: no video stream, or an unknown codec")
        width, height = (
            self._capture.get(which)
            for which in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        if width * height > _MOST_PIXELS:
            raise ValueError(f"frames of {width:.0f} x {height:.0f} pixels")
        declared, rate = (
            self._capture.get(which) for which in (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FPS)
        )
        self.frames = int(declared) if math.isfinite(declared) and declared > 0 else 0
        self.rate = float(rate) if math.isfinite(rate) else 0.0

    def take(self, indices: list[int]) -> None:
        """Answer with frames; those between are decoded and dropped, because seeking is inexact."""
        for index in dict.fromkeys(indices):
            while self._next < index:
                if not self._capture.grab():
                    return _answer(ended=self._next)
                self._next += 1
            is_there, frame = self._capture.read()
            if not is_there:
                return _answer(ended=self._next)
            self._next += 1
            if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
                raise ValueError(f"a frame of {frame.dtype} and shape {frame.shape}")
            _answer(shape=frame.shape)
            sys.stdout.buffer.write(np.ascontiguousarray(frame[..., ::-1]).tobytes())
            sys.stdout.buffer.flush()
        return None

    def close(self) -> None:
        """Release the file."""
        self._capture.release()


def _serve() -> None:
    # Ctrl-C reaches the whole process group; the parent alone reports it and ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.path[:] = json.loads(sys.stdin.readline())
    video: _Video | None = None
    for line in sys.stdin:
        question = json.loads(line)
        try:
            if "open" in question:
                if video is not None:
                    video.close()
                video = _Video(question["open"])
                _answer(frames=video.frames, rate=video.rate)
            elif video is not None:
                video.take(question["take"])
        except ImportError as error:
            _answer(missing=str(error))
        # OpenCV raises its own errors, and whatever its callbacks run into.
        except Exception as error:
            _answer(error=str(error))


if __name__ == "__main__":
    _serve()
