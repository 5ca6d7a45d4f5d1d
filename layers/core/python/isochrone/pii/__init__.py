"""Personal data in requests: found, taken out before anybody else sees it, and put back into the answer."""
