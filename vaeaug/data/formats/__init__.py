"""One module for each kind of source.

A reader returns `finish.RawData`: images and labels as the source stores them, and what it states
of itself. It finds the parts and guards against damage; `finish` does everything else.
"""
