"""Where bars are kept: one file a database, behind `base.Store`."""
