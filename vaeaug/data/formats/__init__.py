"""One module for each kind of source.

A reader, `read_x(source, request)`, finds the images and labels of the requested split, guards
against damage, and returns `finish.RawData`: both as they are stored, and what the source states of
itself. Images in files are decoded when `finish` asks for them; `finish` does everything else.

To add one, write such a function, and a function that recognises the source where no ending of its
name does; `reading` calls both. Images that come one by one go through `stack.Stack`, which reports
those that cannot be read; sizes that a file declares go through `require_memory` first.
"""
