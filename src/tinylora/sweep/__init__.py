"""Many runs from one file: grids, runners, records, figures."""
