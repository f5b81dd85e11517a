-- What names the store: a copy of the database has the same, and no other store has it. It is no column of meta: those who
-- wait for meta's row would wait for its table, too, and the one who has the row for them.
CREATE TABLE eventflow.identity (id integer PRIMARY KEY, store text NOT NULL);
INSERT INTO eventflow.identity (id, store) VALUES (1, gen_random_uuid()::text);
