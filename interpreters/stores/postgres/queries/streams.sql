SELECT name FROM streams WHERE name >= %s AND name < %s AND name > %s ORDER BY name LIMIT %s;
