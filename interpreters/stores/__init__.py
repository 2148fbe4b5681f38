"""The stores: what answers the requests of programs. None knows another, nor what drives programs."""
