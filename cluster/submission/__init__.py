"""Job files on a cluster that is there already, through Ray Jobs.

A submission takes this way: `order` fixes what is asked, `packing` packs the working directory,
`preflight` asks every node (`probe` answers there), `driver` runs the jobs on the cluster, and
`record` says from the lake how it ended, because Ray's own word on a job can't be relied on.
"""
