"""One module for each kind of source: its arrays as stored, and what it says of itself."""
