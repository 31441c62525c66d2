"""SimSiam: a backbone learned from two views of each image, without labels (Chen and He 2021)."""
