-- What names the store: a copy of the database has the same, and no other store has it.
ALTER TABLE eventflow.meta ADD COLUMN store text NOT NULL DEFAULT gen_random_uuid()::text;
