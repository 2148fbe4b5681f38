SELECT newest_position(%s, %s, %s, %s);
