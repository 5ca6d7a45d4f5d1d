"""What is remembered of every request, allowed or denied, in chains that show whether something was changed."""
