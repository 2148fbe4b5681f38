SELECT grant_to_reader(%s);
