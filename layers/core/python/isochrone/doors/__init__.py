"""The doors: how HTTP reaches the pipeline as a Request and leaves it as a Reply."""
