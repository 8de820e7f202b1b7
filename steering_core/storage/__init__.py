"""Files on disk: written atomically, checked when read, never pickled."""
