"""What to do: a module per kind, with plan(spec, store) and run(spec, pool, store)."""
