"""Transfer to news articles (CNN/DM)."""
