//! Sessions that are open and idle.

use std::io;
use std::time::Instant;

use super::driver::Driver;
use super::endpoint::Endpoint;
use super::plan::Plan;
use super::world::{Course, World};
use crate::failure::Failure;

/// As many open sessions as a plan has connections. They have passed HELO and send messages when told to.
pub struct Crowd<'a> {
    driver: Driver<'a>,
    plan: &'a Plan,
}

/// What a crowd goes by.
#[derive(Debug)]
pub struct Ground<'a> {
    plan: &'a Plan,
    endpoint: Endpoint,
    course: Course,
}

impl<'a> Ground<'a> {
    /// Looks the filter up.
    pub fn new(plan: &'a Plan) -> Result<Self, Failure> {
        let endpoint = Endpoint::of(&plan.target).map_err(|error| cannot_connect(plan, &error))?;
        Ok(Ground { plan, endpoint, course: Course::new(plan, Instant::now()) })
    }
}

impl<'a> Crowd<'a> {
    /// Opens the sessions, one after the other.
    pub fn gather(ground: &'a Ground<'a>) -> Result<Self, Failure> {
        let plan = ground.plan;
        let world = World::new(plan, &ground.course, true);
        let driver = Driver::new(plan.connections, &ground.endpoint, world);
        let mut crowd = Crowd { driver: driver.map_err(|error| cannot_connect(plan, &error))?, plan };
        for session in 0..plan.connections {
            crowd.driver.start(session);
            crowd.settle()?;
        }
        Ok(crowd)
    }

    /// Sends one message on each of the first `sessions`, one after the other.
    pub fn deliver(&mut self, sessions: usize) -> Result<(), Failure> {
        for session in 0..sessions {
            self.driver.wake(session);
            self.settle()?;
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<(), Failure> {
        self.driver.run().map_err(|error| cannot_connect(self.plan, &error))?;
        match self.driver.world.tally.failures.first() {
            Some((failure, _)) => Err(failure.clone()),
            None => Ok(()),
        }
    }
}

fn cannot_connect(plan: &Plan, error: &io::Error) -> Failure {
    Failure::Connect { reason: plan.target.explain(error) }
}
