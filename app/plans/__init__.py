"""Plans: what each one includes, what a tenant has instead, and how it comes to have another."""
