"""The report of a study: its page, the sample viewer and the list of sections."""
