"""The tables of results, their pictures, the pages, and the verdict in words."""
