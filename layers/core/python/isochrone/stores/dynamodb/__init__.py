"""The stores on DynamoDB, over a small client of our own."""
