"""Attribution jobs: submit, check, look at, cancel, delete."""
