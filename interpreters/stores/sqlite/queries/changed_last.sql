-- How many rows the last statement has changed that changed any.
SELECT changes();
