UPDATE streams SET dropped = ?, dropped_position = ? WHERE id = ?;
