"""Reports: all about one or more runs on a page that is complete in itself."""
