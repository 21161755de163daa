"""What a sweep found, drawn: tables, plots, sheets, films and a page."""
