"""What nginx asks the API."""
