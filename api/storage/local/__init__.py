"""Storage ``local``: a folder behind nginx."""
