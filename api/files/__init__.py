"""Users' files: names, lists, trash, links."""
