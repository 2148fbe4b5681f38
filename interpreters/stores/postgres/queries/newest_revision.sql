SELECT newest_revision(%s, %s, %s, %s);
