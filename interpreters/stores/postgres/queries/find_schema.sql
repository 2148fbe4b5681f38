-- What is named from now on is the store's, and nothing that a session made for itself hides it.
SET search_path = {}, pg_temp;
