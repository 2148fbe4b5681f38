SELECT grant_to_writer(%s);
