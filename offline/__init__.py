"""Everything done ahead: data sets, training, templates, attacks, fitting, measuring, and the command line."""
