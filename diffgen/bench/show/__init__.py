"""Views of a sweep: tables, plots, sheets, films and a page."""
