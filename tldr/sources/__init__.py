"""Where data comes from: raw dumps and their filter, the hub, news; for the data stage and the commands."""
