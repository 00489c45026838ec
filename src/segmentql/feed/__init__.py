"""The change feed: every recorded join and leave, in the order of recording, without gaps."""
