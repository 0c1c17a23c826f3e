"""The model server: one data plane under thin V1 and V2 routes."""
