"""Many runs from one file: grids, runners, results, figures."""
