SELECT newest_settled(settled());
