SELECT go_on_above(%s);
