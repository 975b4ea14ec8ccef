"""The test kit: what is generated from the metadata, run against a real server, and shown as evidence.

Four proofs share a world of two tenants; read each from its left end.

    the world     values < rows < seeding < world, in a database of databases
    the matrix    matrix < verbs < stage, shapes, mappers, cascades; controls
    the sweep     sweep < routes, inputs, answers
    long use      soak < actions < ledger; fuzzer < rules < story < places, oracle
    the evidence  evidence < premises
"""
