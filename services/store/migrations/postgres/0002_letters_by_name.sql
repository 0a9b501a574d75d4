-- Those of a topic are listed by its name: of one over the limit there is no number.
CREATE INDEX dead_letters_by_name ON dead_letters (topic, id);
