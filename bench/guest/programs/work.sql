-- A table of 20,000 rows, an index, a join, groups, and changes in a transaction.
CREATE TABLE item(id INTEGER PRIMARY KEY, kind INTEGER, name TEXT, price INTEGER);
CREATE TABLE kind(id INTEGER PRIMARY KEY, title TEXT);
BEGIN;
INSERT INTO kind WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 49) SELECT i, 'kind ' || i FROM n;
INSERT INTO item WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 19999)
  SELECT i, i * 7919 % 50, printf('item-%06d', i * 48271 % 65537), i * 69621 % 10007 FROM n;
COMMIT;
CREATE INDEX by_name ON item(name);
SELECT title, count(*), sum(price), min(name) FROM item JOIN kind ON kind.id = item.kind GROUP BY title ORDER BY 3;
BEGIN;
UPDATE item SET price = price * 2 + 1 WHERE name LIKE 'item-01%';
DELETE FROM item WHERE kind % 5 = 3;
COMMIT;
SELECT count(*), sum(price), max(name) FROM item WHERE name BETWEEN 'item-02' AND 'item-05';
SELECT a.id, b.id FROM item a JOIN item b ON b.name = 'item-' || substr(a.name, 6) WHERE a.id % 997 = 0 ORDER BY a.name LIMIT 20;
