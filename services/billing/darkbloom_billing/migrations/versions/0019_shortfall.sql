-- What Stripe has sent and the books have forgotten is booked whole: what is not earned is lent to the
-- account as its debt, and what our asset at Stripe lacks is owed to Stripe.
INSERT INTO ledger.rule VALUES
  ('shortfall', 'user_debt', 'user_earned'),
  ('withdrawal', 'user_earned', 'stripe_payable');
