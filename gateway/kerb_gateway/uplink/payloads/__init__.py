"""One file a payload format; which is spoken is the configuration's choice."""
