"""Files on disk: written atomically, read with checks, never pickled."""
