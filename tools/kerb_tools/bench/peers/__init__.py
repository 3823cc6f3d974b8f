"""What `kerb bench gateway` runs beside each other: a file each, all on the same course."""
