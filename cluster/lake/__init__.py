"""The lake: Delta tables under one root, written by runs exactly once and read through their log.

Writing: `layout` says where things lie, `leases` who may work, `runs` what a run has done, `files`
writes data, `commit` and `committing` make rows part of the tables, `decisions` settles held runs,
`bundles` keeps models, and `store` is what jobs see of it all. Reading: `snapshot` lists the files
and the published runs, `views` holds the SQL of the views, `statements` looks at the SQL of others,
`reader` answers queries.
"""
